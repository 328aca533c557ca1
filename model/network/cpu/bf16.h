/* bfloat16, the upper half of a float32. */

#ifndef ALEXNET_BF16_H
#define ALEXNET_BF16_H

#include <stdint.h>
#include <string.h>

#define EXPAND static inline __attribute__((always_inline))

EXPAND float from_bf16(uint16_t upper) {
    uint32_t bits = (uint32_t)upper << 16;
    float value;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

/* To the nearest, ties to even; a NaN remains one. */
EXPAND uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, quiet = (bits >> 16) | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

#endif
