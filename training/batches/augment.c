/* What the augmentations do to the pixels of one crop: scale it, then the rest in one pass. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define MAX_SIDE 1024
#define PIXEL 3
/* How many times as large as what it is scaled to a crop may be, and of how many of its pixels in a
 * row one may be made. */
#define MAX_FACTOR 2
#define MAX_TAPS (2 * MAX_FACTOR + 1)

typedef struct {
    int first[MAX_SIDE], count[MAX_SIDE], most, precision;
    float weights[MAX_SIDE][MAX_TAPS];
} Taps;

typedef uint8_t Bytes __attribute__((vector_size(4)));
typedef int32_t Whole __attribute__((vector_size(16)));
typedef float Four __attribute__((vector_size(16)));

/* The weights of bilinear, antialiased scaling from `in` pixels to `out`, as torch has them for
 * bytes: integers of as many bits as fit into 16 with their sign. They add up to 2^16 at most, since
 * one of them is a quarter of that or more: products with bytes and their sums are exact as floats.
 */
static void weigh(Taps *taps, int in, int out) {
    const double scale = (double)in / out, support = scale > 1.0 ? scale : 1.0;
    double weights[MAX_TAPS], largest = 0.0;
    memset(taps, 0, sizeof *taps);
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < out; i++) {
            const double centre = scale * (i + 0.5);
            int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
            double sum = 0.0;
            first = first > 0 ? first : 0;
            end = end < in ? end : in;
            taps->first[i] = first;
            taps->count[i] = end - first;
            taps->most = end - first > taps->most ? end - first : taps->most;
            for (int j = 0; j < end - first; j++) {
                const double away = fabs((j + first - centre + 0.5) * (1.0 / support));
                weights[j] = away < 1.0 ? 1.0 - away : 0.0;
                sum += weights[j];
            }
            for (int j = 0; j < end - first; j++) {
                const double weight = sum != 0.0 ? weights[j] / sum : weights[j];
                if (!pass) largest = weight > largest ? weight : largest;
                else taps->weights[i][j] = (int)(0.5 + weight * (1 << taps->precision));
            }
        }
        if (pass) break;
        for (taps->precision = 0; taps->precision < 22; taps->precision++)
            if ((int)(0.5 + largest * (1 << (taps->precision + 1))) >= 1 << 15) break;
    }
}

static inline __attribute__((always_inline)) void scale_row(const float *row, uint8_t *to,
                                                            const Taps *taps, int side, int most) {
    const float half = 1 << (taps->precision - 1), unit = 1.0f / (1 << taps->precision);
    for (int x = 0; x < side; x++, to += PIXEL) {
        const float *from = row + taps->first[x] * PIXEL;
        Four sums = {half, half, half, half};
        for (int j = 0; j < most; j++) {
            Four pixel;
            memcpy(&pixel, from + j * PIXEL, sizeof pixel);
            sums += pixel * taps->weights[x][j];
        }
        /* Of four bytes the next pixel overwrites the last. */
        const Whole whole = __builtin_convertvector(sums * unit, Whole);
        const Bytes bytes = __builtin_convertvector(whole, Bytes);
        memcpy(to, &bytes, sizeof bytes);
    }
}

/* Scale a crop, [height][width][3], to [side][side][3], bit for bit as torch does: rows, then
 * columns. No sum leaves a byte, since the weights are not negative and add up to one but for their
 * rounding. `room` holds height * side * 3 + 1 bytes. Returns 1 if a side is too large or the crop
 * too large for it.
 */
int resize(const uint8_t *crop, int64_t crop_step, int height, int width, uint8_t *restrict room,
           uint8_t *restrict out, int side) {
    Taps taps;
    float row[(MAX_SIDE + MAX_TAPS) * PIXEL + 1];
    const int step = side * PIXEL;
    if (side > MAX_SIDE || width > MAX_SIDE || height > MAX_SIDE) return 1;
    if (width > MAX_FACTOR * side || height > MAX_FACTOR * side) return 1;
    weigh(&taps, width, side);
    memset(row, 0, sizeof row);
    for (int y = 0; y < height; y++, crop += crop_step) {
        uint8_t *to = room + (int64_t)y * step;
        /* What follows the row is read, too, with weights of zero. */
        for (int i = 0; i < width * PIXEL; i++) row[i] = crop[i];
        /* The compiler unrolls what it knows the length of. */
        if (taps.most <= 3) scale_row(row, to, &taps, side, 3);
        else scale_row(row, to, &taps, side, taps.most);
    }
    weigh(&taps, height, side);
    for (int y = 0; y < side; y++, out += step) {
        float sums[MAX_SIDE * PIXEL];
        const float half = 1 << (taps.precision - 1), unit = 1.0f / (1 << taps.precision);
        for (int j = 0; j < taps.most; j += 3) {
            const uint8_t *rows[3];
            float weights[3];
            for (int k = 0; k < 3; k++) {
                const int known = j + k < taps.count[y];
                rows[k] = room + (int64_t)(taps.first[y] + (known ? j + k : 0)) * step;
                weights[k] = known ? taps.weights[y][j + k] : 0.0f;
            }
            for (int i = 0; i < step; i++)
                sums[i] = (j ? sums[i] : half) + rows[0][i] * weights[0] +
                          rows[1][i] * weights[1] + rows[2][i] * weights[2];
        }
        for (int i = 0; i < step; i++) out[i] = (uint8_t)(int)(sums[i] * unit);
    }
    return 0;
}

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
