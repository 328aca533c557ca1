/* The update rule of §5, for weights that are rounded to bfloat16 before they are used. */

#include "../../model/network/cpu/bf16.h"

/* u <- momentum u + g + decay w; w <- w - rate u; copy <- w, rounded; from `begin` to `end`. */
int update(float *restrict w, float *restrict u, const uint16_t *restrict gradient,
           uint16_t *restrict copy, float rate, float momentum, float decay, int64_t begin,
           int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        u[i] = momentum * u[i] + (from_bf16(gradient[i]) + decay * w[i]);
        w[i] -= rate * u[i];
        copy[i] = to_bf16(w[i]);
    }
    return 0;
}
