# Finds all that is needed, or says at once what is missing and how to get it.
#
# OpenVINO comes from its Python wheel when `OpenVINO_DIR` names no other: the wheel ships headers,
# libraries and a CMake configuration. ONNX Runtime comes from its release archive
# (`ONNXRUNTIME_ROOT`) or from the system; where only headers are there, from the Python wheel's
# library, whose C API serves headers of any older version.

set(DENSEPATH_PYTHON "python3" CACHE STRING "The Python whose openvino and onnxruntime are used")
set(ONNXRUNTIME_ROOT "" CACHE PATH "An unpacked release archive of ONNX Runtime, or its headers")

find_package(Threads REQUIRED)
find_package(JPEG QUIET)
find_package(ZLIB QUIET)
find_package(nlohmann_json 3.10 QUIET)

set(missing "")
if(NOT JPEG_FOUND)
  list(APPEND missing libjpeg-dev)
endif()
if(NOT ZLIB_FOUND)
  list(APPEND missing zlib1g-dev)
endif()
if(NOT nlohmann_json_FOUND)
  list(APPEND missing nlohmann-json3-dev)
endif()
if(missing)
  list(JOIN missing " " names)
  message(FATAL_ERROR "Missing libraries. On Debian or Ubuntu:\n  apt-get install ${names}\n"
                      "docs/cpp.md has other systems.")
endif()

if(DENSEPATH_TIFF)
  find_package(TIFF QUIET)
  if(TIFF_FOUND)
    message(STATUS "TIFF: libtiff ${TIFF_VERSION_STRING}")
  else()
    message(STATUS "TIFF: not found (libtiff-dev); such files are refused")
    set(DENSEPATH_TIFF OFF)
  endif()
endif()

# The folder of a Python package, empty if it is not installed.
function(find_wheel package result)
  execute_process(
    COMMAND ${DENSEPATH_PYTHON} -c
      "import importlib.util as u; s = u.find_spec('${package}'); print(s.submodule_search_locations[0] if s else '')"
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(${result} "${folder}" PARENT_SCOPE)
endfunction()

if(DENSEPATH_OPENVINO)
  find_wheel(openvino openvino_wheel)
  find_package(OpenVINO QUIET COMPONENTS Runtime HINTS ${openvino_wheel}/cmake)
  if(OpenVINO_FOUND)
    message(STATUS "Back end openvino: ${OpenVINO_VERSION} in ${OpenVINO_DIR}")
  else()
    message(STATUS "Back end openvino: not found (pip install openvino, or set OpenVINO_DIR)")
    set(DENSEPATH_OPENVINO OFF)
  endif()
endif()

if(DENSEPATH_ONNXRUNTIME)
  find_wheel(onnxruntime onnxruntime_wheel)
  file(GLOB in_wheel ${onnxruntime_wheel}/capi/libonnxruntime.so.*)
  if(onnxruntime_wheel AND in_wheel)
    # The wheel has the library without the link by which programs look for it.
    list(GET in_wheel 0 library)
    set(onnxruntime_last ${CMAKE_CURRENT_BINARY_DIR}/onnxruntime)
    file(MAKE_DIRECTORY ${onnxruntime_last})
    file(CREATE_LINK ${library} ${onnxruntime_last}/libonnxruntime.so.1 SYMBOLIC)
  endif()
  include(DensepathOnnxRuntime)
  if(ONNXRUNTIME_INCLUDE AND ONNXRUNTIME_LIBRARY)
    get_filename_component(onnxruntime_folder ${ONNXRUNTIME_LIBRARY} DIRECTORY)
    message(STATUS "Back end onnxruntime: ${ONNXRUNTIME_LIBRARY}, headers in ${ONNXRUNTIME_INCLUDE}")
  else()
    message(STATUS "Back end onnxruntime: no headers or library found (set ONNXRUNTIME_ROOT)")
    set(DENSEPATH_ONNXRUNTIME OFF)
  endif()
endif()

if(DENSEPATH_NATIVE AND NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  message(STATUS "Back end native: needs GCC or Clang, whose vectors it is written in")
  set(DENSEPATH_NATIVE OFF)
endif()

if(NOT DENSEPATH_NATIVE AND NOT DENSEPATH_OPENVINO AND NOT DENSEPATH_ONNXRUNTIME)
  message(FATAL_ERROR
    "No back end can be built. One of these is needed:\n"
    "  GCC or Clang                  (our own kernels)\n"
    "  pip install openvino          (or -DOpenVINO_DIR=.../runtime/cmake)\n"
    "  -DONNXRUNTIME_ROOT=FOLDER     (an unpacked onnxruntime release archive)\n"
    "-DDENSEPATH_PYTHON=... names another Python to look into.")
endif()
