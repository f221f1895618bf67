# Headers, the library, the programs, and what find_package(densepath) reads.

include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/densepath)
set(runtimes ${CMAKE_INSTALL_LIBDIR}/densepath)

# Each finds the other from where it lies, wherever the folder is moved.
if(NOT APPLE)
  set(own_library_folder "$ORIGIN")
  file(RELATIVE_PATH from_programs /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set(from_programs "$ORIGIN/${from_programs}")
else()
  set(own_library_folder "@loader_path")
  file(RELATIVE_PATH from_programs /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set(from_programs "@loader_path/${from_programs}")
endif()
set_target_properties(densepath PROPERTIES
  INSTALL_RPATH "${own_library_folder};${own_library_folder}/densepath")

install(TARGETS densepath EXPORT densepath-targets)
install(DIRECTORY include/densepath TYPE INCLUDE)
if(TARGET densepath-predict)
  set_target_properties(densepath-predict PROPERTIES INSTALL_RPATH "${from_programs}/densepath")
  install(TARGETS densepath-predict)
endif()
if(DENSEPATH_ONNXRUNTIME AND onnxruntime_folder STREQUAL onnxruntime_last)
  install(FILES ${ONNXRUNTIME_LIBRARY} DESTINATION ${runtimes})  # The link to the wheel's library.
endif()
install(FILES ../../LICENSE ../../NOTICE TYPE DOC)

install(EXPORT densepath-targets NAMESPACE densepath:: DESTINATION ${package})
configure_package_config_file(cmake/densepath-config.cmake.in densepath-config.cmake
  INSTALL_DESTINATION ${package} PATH_VARS runtimes)
write_basic_package_version_file(densepath-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_CURRENT_BINARY_DIR}/densepath-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/densepath-config-version.cmake
  cmake/DensepathOnnxRuntime.cmake
  DESTINATION ${package})
