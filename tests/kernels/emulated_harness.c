/* Runs kernels of an image in a process of another machine.
 *
 * usage: harness JOB RESULT. JOB holds eight-byte numbers: where the image lies in the file and its bytes, where the
 * memory lies and its bytes, and the number of calls; then each call: the kernel's offset in the image, chunks,
 * number of arguments, and their offsets in the memory. RESULT gets the memory after the last call. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

typedef void (*kernel)(void **, int64_t);

int main(int count, char **names) {
  if (count != 3) return 2;
  int file = open(names[1], O_RDONLY);
  struct stat status;
  if (file < 0 || fstat(file, &status)) return 3;
  char *job = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
  if (job == MAP_FAILED) return 4;
  const uint64_t *numbers = (const uint64_t *)job;
  uint64_t code_at = numbers[0], code_size = numbers[1], memory_at = numbers[2], memory_size = numbers[3];
  char *code = mmap(NULL, code_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, file, code_at);
  if (code == MAP_FAILED) return 5;
  char *memory = aligned_alloc(4096, (memory_size + 4095) / 4096 * 4096);
  memcpy(memory, job + memory_at, memory_size);
  const uint64_t *call = numbers + 5;
  for (uint64_t i = 0; i < numbers[4]; i++) {
    kernel function = (kernel)(code + call[0]);
    uint64_t chunks = call[1], wanted = call[2];
    void *arguments[256];
    if (wanted > 256) return 6;
    for (uint64_t k = 0; k < wanted; k++) arguments[k] = memory + call[3 + k];
    for (uint64_t chunk = 0; chunk < chunks; chunk++) function(arguments, (int64_t)chunk);
    call += 3 + wanted;
  }
  FILE *result = fopen(names[2], "wb");
  if (!result || fwrite(memory, 1, memory_size, result) != memory_size || fclose(result)) return 7;
  return 0;
}
