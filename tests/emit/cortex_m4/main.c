/* A Cortex-M4 without an operating system: starts its float unit, runs the model once, exits with what it returns.
 * Files are those of the machine that emulates it, through semihosting. */
#include <stdint.h>
#include <stdio.h>

#include "model.h"

extern void _start(void);
static void reset(void);

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    (const void *)0x20400000, (const void *)reset
};

static void reset(void) {
    volatile uint32_t *const coprocessors = (volatile uint32_t *)0xE000ED88;
    *coprocessors |= 0xFu << 20;
    _start();
}

int main(void) {
    static float in[MODEL_INPUT_INPUT_SIZE], out[MODEL_OUTPUT_OUTPUT_SIZE];
    FILE *file = fopen("in.bin", "rb");
    if (file == NULL || fread(in, sizeof in, 1, file) != 1 || model_run(in, out) != MODEL_OK) {
        return 1;
    }
    fclose(file);
    file = fopen("out.bin", "wb");
    return file == NULL || fwrite(out, sizeof out, 1, file) != 1 || fclose(file) != 0;
}
