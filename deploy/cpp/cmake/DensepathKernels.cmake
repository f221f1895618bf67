# Our own kernels, the only code that is compiled for newer processors than all have.

target_compile_definitions(densepath-parts PRIVATE DENSEPATH_NATIVE)
set_source_files_properties(src/backends.cpp PROPERTIES
  COMPILE_DEFINITIONS DENSEPATH_MARCH="${DENSEPATH_MARCH_USED}")
target_sources(densepath-parts PRIVATE ${densepath_kernels}/processor.cpp)

add_library(densepath-kernels OBJECT src/backend_native.cpp)
densepath_compile(densepath-kernels)
# As kernels/compile.py compiles them.
target_compile_options(densepath-kernels PRIVATE -O3 -ffp-contract=fast -fno-math-errno
                       -fno-trapping-math -falign-loops=64 -Wno-psabi)
if(DENSEPATH_MARCH_USED)
  target_compile_options(densepath-kernels PRIVATE -march=${DENSEPATH_MARCH_USED})
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 warns of its own intrinsics.
  target_compile_options(densepath-kernels PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
endif()
set_target_properties(densepath-kernels PROPERTIES INTERPROCEDURAL_OPTIMIZATION OFF)

# Where names cannot be changed the kernels come last, so that the linker meets all others first.
if(CMAKE_EXECUTABLE_FORMAT STREQUAL "ELF" AND CMAKE_NM AND CMAKE_OBJCOPY
   AND NOT CMAKE_CONFIGURATION_TYPES)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/densepath-kernels${CMAKE_CXX_OUTPUT_EXTENSION})
  add_custom_command(OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -DOBJECT=$<TARGET_OBJECTS:densepath-kernels> -DMADE=${object}
      -DNM=${CMAKE_NM} -DOBJCOPY=${CMAKE_OBJCOPY}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/cmake/OwnSymbols.cmake
    DEPENDS $<TARGET_OBJECTS:densepath-kernels> cmake/OwnSymbols.cmake VERBATIM
    COMMENT "Keeping the kernels' own copies of inline functions to them")
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  add_custom_target(densepath-kernels-object DEPENDS ${object})
  add_dependencies(densepath-kernels-object densepath-kernels)
  list(APPEND densepath_objects ${object})
else()
  list(APPEND densepath_objects $<TARGET_OBJECTS:densepath-kernels>)
endif()
