# The library's sources, compiled once: for the library itself, and for the programs, which use what
# its headers do not show and so hold their own copy where the library is a shared one.

add_library(densepath-parts OBJECT
  src/arch.cpp
  src/backends.cpp
  src/benchmark.cpp
  src/bundle.cpp
  src/checkpoint.cpp
  src/cores.cpp
  src/decode.cpp
  src/decode_dicom.cpp
  src/decode_jpeg.cpp
  src/decode_npy.cpp
  src/decode_png.cpp
  src/dicom_header.cpp
  src/dicom_values.cpp
  src/errors.cpp
  src/exif.cpp
  src/file.cpp
  src/flow.cpp
  src/image_paths.cpp
  src/lines.cpp
  src/passed_over.cpp
  src/inflate.cpp
  src/intensity.cpp
  src/options.cpp
  src/png_notes.cpp
  src/png_pixels.cpp
  src/precision.cpp
  src/predictions.cpp
  src/predictor.cpp
  src/preprocess.cpp
  src/sha256.cpp
  src/spread.cpp
  src/text.cpp
  src/values.cpp)
set(densepath_objects $<TARGET_OBJECTS:densepath-parts>)
set(densepath_packages JPEG::JPEG ZLIB::ZLIB Threads::Threads)
set(densepath_kernels ${CMAKE_CURRENT_SOURCE_DIR}/../../src/densepath/kernels)

# Warnings are looked at where densepath is developed; they end the build only where one asks for it.
function(densepath_warnings target)
  if(MSVC)
    target_compile_options(${target} PRIVATE /W4 /utf-8)
    target_compile_definitions(${target} PRIVATE _CRT_SECURE_NO_WARNINGS NOMINMAX)
  else()
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
  endif()
  if(DENSEPATH_WERROR)
    target_compile_options(${target} PRIVATE $<IF:$<CXX_COMPILER_ID:MSVC>,/WX,-Werror>)
  endif()
endfunction()

# What compiling the library's own sources takes.
function(densepath_compile target)
  target_include_directories(${target} PRIVATE include src)
  # The sources of the Python engine `native`; their own warnings are looked at there.
  target_include_directories(${target} SYSTEM PRIVATE ${densepath_kernels})
  target_link_libraries(${target} PRIVATE ${densepath_packages} nlohmann_json::nlohmann_json)
  if(BUILD_SHARED_LIBS)
    target_compile_definitions(${target} PRIVATE DENSEPATH_BUILDS_SHARED)
  endif()
  densepath_warnings(${target})
endfunction()

if(DENSEPATH_OPENVINO)
  target_sources(densepath-parts PRIVATE src/backend_openvino.cpp)
  target_compile_definitions(densepath-parts PRIVATE DENSEPATH_OPENVINO)
  list(APPEND densepath_packages openvino::runtime)
endif()
if(DENSEPATH_ONNXRUNTIME)
  target_sources(densepath-parts PRIVATE src/backend_onnxruntime.cpp)
  target_compile_definitions(densepath-parts PRIVATE DENSEPATH_ONNXRUNTIME)
  list(APPEND densepath_packages onnxruntime::onnxruntime)
endif()
if(DENSEPATH_TIFF)
  target_sources(densepath-parts PRIVATE src/decode_tiff.cpp src/tiff_file.cpp)
  target_compile_definitions(densepath-parts PRIVATE DENSEPATH_TIFF)
  list(APPEND densepath_packages TIFF::TIFF)
endif()
densepath_compile(densepath-parts)
# Python's doubles, which are not fused: the same weights of the resizing, the same inputs.
if(NOT MSVC)
  set_source_files_properties(src/preprocess.cpp src/values.cpp src/dicom_values.cpp
    src/intensity.cpp PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
endif()

# The target `densepath`, also named as find_package names it.
function(densepath_library)
  add_library(densepath ${densepath_objects})
  add_library(densepath::densepath ALIAS densepath)
  set_target_properties(densepath PROPERTIES LINKER_LANGUAGE CXX
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
  target_compile_features(densepath PUBLIC cxx_std_17)
  target_include_directories(densepath PUBLIC
    $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  if(BUILD_SHARED_LIBS)
    target_compile_definitions(densepath PUBLIC DENSEPATH_SHARED)
    # Who links a shared library needs none of its packages.
    foreach(package IN LISTS densepath_packages)
      target_link_libraries(densepath PRIVATE $<BUILD_INTERFACE:${package}>)
    endforeach()
  else()
    target_link_libraries(densepath PRIVATE ${densepath_packages})
  endif()
  if(TARGET densepath-kernels-object)
    add_dependencies(densepath densepath-kernels-object)
  endif()
endfunction()

# A program of this folder, which may use the library's parts.
function(densepath_program name source)
  add_executable(${name} ${source} ${densepath_objects})
  densepath_compile(${name})
  if(TARGET densepath-kernels-object)
    add_dependencies(${name} densepath-kernels-object)
  endif()
endfunction()
