# cmake -DOBJECT=… -DMADE=… -DNM=… -DOBJCOPY=… -P OwnSymbols.cmake
#
# A copy of an object file whose inline functions and templates have names of their own. The linker
# keeps one copy of each for a whole program: if it kept one that was compiled for newer processors,
# code that must run on every processor would call it, and end with an illegal instruction.

execute_process(COMMAND ${NM} ${OBJECT} OUTPUT_VARIABLE symbols RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${NM} cannot read ${OBJECT}")
endif()
set(names "")
# Of the kinds W, V and u are such functions and data; n is the name of a group, by which the linker
# finds copies.
string(REGEX MATCHALL "[0-9a-fA-F]+ [WVun] [^\n]+" found "${symbols}")
foreach(line IN LISTS found)
  string(REGEX REPLACE "^[0-9a-fA-F]+ [WVun] " "" symbol "${line}")
  # Type information stays the same: by it exceptions are caught.
  if(NOT symbol MATCHES "^(_ZT[IS]|DW\\.ref\\.)")
    string(APPEND names "${symbol} ${symbol}.densepath_kernels\n")
  endif()
endforeach()
file(WRITE ${MADE}.symbols "${names}")
execute_process(COMMAND ${OBJCOPY} --redefine-syms=${MADE}.symbols ${OBJECT} ${MADE}
  RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "${OBJCOPY} cannot rename the symbols of ${OBJECT}")
endif()
