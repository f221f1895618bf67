# Which processor the kernels are compiled for: DENSEPATH_MARCH, or a choice that is said.
#
# Sets DENSEPATH_MARCH_USED, empty for the compiler's own default.

set(DENSEPATH_MARCH "" CACHE STRING
  "The processor that the kernels are compiled for: native, x86-64-v3, armv8-a, …; empty chooses")

include(CheckCXXCompilerFlag)

# Sets `result` to whether the compiler knows -march=`march`.
function(densepath_knows_march march result)
  string(MAKE_C_IDENTIFIER "DENSEPATH_KNOWS_MARCH_${march}" known)
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_compiler_flag("-march=${march}" ${known})
  set(${result} "${${known}}" PARENT_SCOPE)
endfunction()

# What the compiler makes programs for: "aarch64-linux-gnu".
function(densepath_compilers_target result)
  set(target "${CMAKE_CXX_COMPILER_TARGET}")
  if(NOT target)
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -dumpmachine OUTPUT_VARIABLE target
      OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  endif()
  set(${result} "${target}" PARENT_SCOPE)
endfunction()

# What a program for another machine, or by a compiler that knows no `native`, is compiled for.
function(densepath_common_march result)
  densepath_compilers_target(target)
  set(march "")
  if(target MATCHES "^(x86_64|amd64)")
    set(march x86-64-v3)  # From 2013 on; an older one is told so when the program starts.
  elseif(target MATCHES "^(aarch64|arm64)")
    set(march armv8-a)
  endif()
  if(march)
    densepath_knows_march(${march} known)
    if(NOT known)
      set(march "")
    endif()
  endif()
  set(${result} "${march}" PARENT_SCOPE)
endfunction()

if(DENSEPATH_MARCH)
  densepath_knows_march(${DENSEPATH_MARCH} known)
  if(NOT known)
    densepath_compilers_target(target)
    message(FATAL_ERROR
      "DENSEPATH_MARCH is '${DENSEPATH_MARCH}', which ${CMAKE_CXX_COMPILER} (for ${target}) does "
      "not know. Leave it out, and one is chosen; or name one that `-march=` takes, such as "
      "native, x86-64-v3, armv8-a.")
  endif()
  set(DENSEPATH_MARCH_USED "${DENSEPATH_MARCH}")
  set(why "as DENSEPATH_MARCH says")
else()
  set(known OFF)
  if(NOT CMAKE_CROSSCOMPILING)
    densepath_knows_march(native known)
  endif()
  if(known)
    set(DENSEPATH_MARCH_USED native)
    set(why "this machine's processor; -DDENSEPATH_MARCH=x86-64-v3, … names another")
  else()
    densepath_common_march(DENSEPATH_MARCH_USED)
    if(CMAKE_CROSSCOMPILING)
      set(why "chosen, for a cross build names none; -DDENSEPATH_MARCH=… names another")
    else()
      set(why "chosen, for the compiler knows no -march=native; -DDENSEPATH_MARCH=… names another")
    endif()
  endif()
endif()
if(DENSEPATH_MARCH_USED)
  message(STATUS "Back end native: compiled for ${DENSEPATH_MARCH_USED} (${why})")
else()
  message(STATUS "Back end native: compiled for the compiler's default processor (${why})")
endif()
