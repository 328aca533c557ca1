/* Fold squares of pixels into pixels of more channels, rounded to bfloat16. */

#include "bf16.h"

#define MAX_ROW 8192

/* x: [images][high][wide][channels]. out: [images][rows][columns][stride * stride * channels]. The
 * image lies `pad` pixels from the top and left; zeros are around it. Returns 1 if a row is too long.
 */
int fold(const float *x, uint16_t *out, int high, int wide, int channels, int rows, int columns,
         int stride, int pad, int begin, int end) {
    const int group = stride * channels, length = columns * group, first = pad * channels;
    const int known = wide * channels < length - first ? wide * channels : length - first;
    uint16_t row[MAX_ROW] = {0};
    if (length > MAX_ROW || known < 0) return 1;
    for (int64_t image = begin; image < end; image++)
        for (int y = 0; y < rows * stride; y++) {
            const int from = y - pad;
            uint16_t *to = out + (image * rows + y / stride) * length * stride + y % stride * group;
            if (from >= 0 && from < high) {
                const float *pixels = x + (image * high + from) * wide * channels;
                for (int i = 0; i < known; i++) row[first + i] = to_bf16(pixels[i]);
                for (int c = 0; c < columns; c++)
                    memcpy(to + c * stride * group, row + c * group, group * sizeof *row);
            } else
                for (int c = 0; c < columns; c++)
                    memset(to + c * stride * group, 0, group * sizeof *row);
        }
    return 0;
}
