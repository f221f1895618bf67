// program_vela.tflite as it is, under the name densepath_program: nothing of megabytes to compile.
// The assembler looks for it in the folders named by -I.

#ifndef DENSEPATH_PROGRAM_SECTION  // README.md says which memory it belongs in
#define DENSEPATH_PROGRAM_SECTION .rodata.densepath_program
#endif

  .section DENSEPATH_PROGRAM_SECTION, "a", %progbits
  .global densepath_program, densepath_program_size
  .balign 16
densepath_program:
  .incbin "program_vela.tflite"
densepath_program_end:
  .balign 8
densepath_program_size:
#if __SIZEOF_POINTER__ == 8
  .8byte densepath_program_end - densepath_program
#else
  .4byte densepath_program_end - densepath_program
#endif

  .section .note.GNU-stack, "", %progbits
