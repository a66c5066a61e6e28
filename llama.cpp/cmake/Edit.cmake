# cyllama_edit(<file> <text> <replacement> [<text> <replacement> ...])
#
# Replaces every occurrence of each text in a file of the copy of llama.cpp. Configuring fails where a text is not found: after
# an update of llama.cpp that changes it. The file as it came is kept beside it, so that an edit may change.

function(cyllama_edit file)
  if(NOT EXISTS "${file}.original")
    file(COPY_FILE "${file}" "${file}.original")
  endif()
  file(READ "${file}.original" text)
  math(EXPR last "${ARGC} - 1")
  foreach(i RANGE 1 ${last} 2)
    math(EXPR next "${i} + 1")
    string(FIND "${text}" "${ARGV${i}}" place)
    if(place EQUAL -1)
      message(FATAL_ERROR "llama.cpp has changed: ${file} has no\n${ARGV${i}}\nSee where llama.cpp/ calls cyllama_edit.")
    endif()
    string(REPLACE "${ARGV${i}}" "${ARGV${next}}" text "${text}")
  endforeach()
  file(READ "${file}" present)
  if(NOT present STREQUAL text)
    file(WRITE "${file}" "${text}")
  endif()
endfunction()
