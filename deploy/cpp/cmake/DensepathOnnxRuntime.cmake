# The target onnxruntime::onnxruntime, where headers and library are found. The package that is
# installed uses this file, too.
#
# Reads ONNXRUNTIME_ROOT and, for a library that is nowhere else, the folders `onnxruntime_last`.

find_path(ONNXRUNTIME_INCLUDE onnxruntime_cxx_api.h
  HINTS ${ONNXRUNTIME_ROOT} PATH_SUFFIXES include include/onnxruntime onnxruntime)
find_library(ONNXRUNTIME_LIBRARY NAMES onnxruntime libonnxruntime.so.1
  HINTS ${ONNXRUNTIME_ROOT} PATHS ${onnxruntime_last} PATH_SUFFIXES lib)
if(ONNXRUNTIME_LIBRARY AND NOT TARGET onnxruntime::onnxruntime)
  add_library(onnxruntime::onnxruntime UNKNOWN IMPORTED)
  set_target_properties(onnxruntime::onnxruntime PROPERTIES
    IMPORTED_LOCATION ${ONNXRUNTIME_LIBRARY})
  if(ONNXRUNTIME_INCLUDE)
    set_target_properties(onnxruntime::onnxruntime PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES ${ONNXRUNTIME_INCLUDE})
  endif()
endif()
