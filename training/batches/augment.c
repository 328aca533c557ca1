/* What the augmentations do to the pixels of one crop, in one pass. */

#include <stdint.h>
#include <string.h>

#define MAX_SIDE 1024
#define PIXEL 3

/* out = crop * factors + (mean + shift), [side][side][3], mirrored if asked.
 *
 * The rows of the crop and of the mean image are `crop_step` and `mean_step` numbers apart; factors
 * and shift are of a whole row. Rounded as NumPy rounds: compile without fused multiply-adds.
 * Returns 1 if the side is too large.
 */
int augment(const uint8_t *crop, int64_t crop_step, const float *mean, int64_t mean_step,
            const float *restrict factors, const float *restrict shift, int mirror,
            float *restrict out, int side) {
    const int width = side * PIXEL;
    float row[MAX_SIDE * PIXEL + 1];
    if (side > MAX_SIDE) return 1;
    row[width] = 0.0f;
    for (int y = 0; y < side; y++, crop += crop_step, mean += mean_step, out += width) {
        const uint8_t *restrict pixels = crop;
        const float *restrict own = mean;
        float *restrict to = mirror ? row : out;
        for (int i = 0; i < width; i++) to[i] = pixels[i] * factors[i] + (own[i] + shift[i]);
        if (!mirror) continue;
        /* Four numbers at once, the last of which the next pixel overwrites. */
        for (int x = 0; x < side - 1; x++)
            memcpy(out + x * PIXEL, row + (side - 1 - x) * PIXEL, (PIXEL + 1) * sizeof(float));
        memcpy(out + (side - 1) * PIXEL, row, PIXEL * sizeof(float));
    }
    return 0;
}
