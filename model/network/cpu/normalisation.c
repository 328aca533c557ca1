/* ReLU (§3.1), local response normalisation (§3.3) and max pooling (§3.4) in one pass.
 *
 * An image is [rows][columns][towers * maps], in float32 or bfloat16. Its rows are unpacked to
 * float32 one at a time, with a margin of `reach` zeros on either side of each tower's maps, so that
 * the sum over adjacent maps is a plain loop over the whole row, which compilers turn into vector
 * instructions; what it computes in the margins is not used. All that lies between the reading of
 * the image and the writing of the pooled one stays in the processor's caches.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

typedef struct {
    int32_t bf16;                        /* whether images are bfloat16 */
    int32_t relu;                        /* whether a ReLU comes before the normalisation */
    int32_t towers, maps, reach;         /* maps of each tower; the paper's n is 2 * reach + 1 */
    int32_t size, stride;                /* of the pooling; 1 and 1 without any */
    int32_t rows, columns;               /* of the input */
    int32_t pooled_rows, pooled_columns; /* of the output */
    float k, alpha, beta;
} Layer;

/* The numbers of a pixel in an unpacked row. */
static int count_unpacked(const Layer *layer) {
    return layer->towers * (layer->maps + 2 * layer->reach);
}

static int least(int a, int b) { return a < b ? a : b; }

/* Unpack pixels, the first of which begins at the number `first` of an image; margins stay zero. */
static void unpack(const Layer *layer, const void *image, size_t first, int pixels, float *to) {
    const int maps = layer->maps, step = maps + 2 * layer->reach;
    to += layer->reach;
    for (int group = 0; group < pixels * layer->towers; group++, first += maps, to += step) {
        if (!layer->bf16) {
            memcpy(to, (const float *)image + first, maps * sizeof(float));
            continue;
        }
        const uint16_t *restrict from = (const uint16_t *)image + first;
        float *restrict own = to;
        for (int map = 0; map < maps; map++) own[map] = from_bf16(from[map]);
    }
}

/* The reverse. */
static void pack(const Layer *layer, const float *from, void *image, size_t first, int pixels) {
    const int maps = layer->maps, step = maps + 2 * layer->reach;
    from += layer->reach;
    for (int group = 0; group < pixels * layer->towers; group++, first += maps, from += step) {
        if (!layer->bf16) {
            memcpy((float *)image + first, from, maps * sizeof(float));
            continue;
        }
        uint16_t *restrict to = (uint16_t *)image + first;
        const float *restrict own = from;
        for (int map = 0; map < maps; map++) to[map] = to_bf16(own[map]);
    }
}

/* The same for the places of the largest values. */
static void unpack_places(const Layer *layer, const uint8_t *restrict from, int pixels,
                          int32_t *restrict to) {
    const int maps = layer->maps, step = maps + 2 * layer->reach;
    to += layer->reach;
    for (int group = 0; group < pixels * layer->towers; group++, from += maps, to += step)
        for (int map = 0; map < maps; map++) to[map] = from[map];
}

static void pack_places(const Layer *layer, const int32_t *restrict from, int pixels,
                        uint8_t *restrict to) {
    const int maps = layer->maps, step = maps + 2 * layer->reach;
    from += layer->reach;
    for (int group = 0; group < pixels * layer->towers; group++, to += maps, from += step)
        for (int map = 0; map < maps; map++) to[map] = (uint8_t)from[map];
}

/* Unpack a row of the input, rectified if the layer is. */
static void read_row(const Layer *layer, const void *image, size_t first, float *restrict a) {
    const int length = layer->columns * count_unpacked(layer);
    unpack(layer, image, first, layer->columns, a);
    if (layer->relu)
        /* Written so that a NaN stays. */
        for (int i = 0; i < length; i++) a[i] = a[i] <= 0.0f ? 0.0f : a[i];
}

/* t^-beta. With the paper's beta of 3/4, an estimate from the exponent, within 4.5 %, and Newton's
 * method for t^3 y^4 = 1, which comes within 2e-7. */
EXPAND float negative_power(float t, float beta) {
    if (beta != 0.75f) return powf(t, -beta);
    uint32_t bits;
    float y;
    memcpy(&bits, &t, sizeof bits);
    bits = 0x6f14c000u - (bits - (bits >> 2));
    memcpy(&y, &bits, sizeof bits);
    for (int round = 0; round < 3; round++) {
        float root = t * y * y;
        y *= 1.25f - 0.25f * (t * root * root);
    }
    return y;
}

/* t = k + alpha times the sum of the squares of the maps around one. */
EXPAND float sum_squares(const Layer *layer, const float *a, int reach) {
    float sum = 0.0f;
    for (int j = -reach; j <= reach; j++) sum += a[j] * a[j];
    return layer->k + layer->alpha * sum;
}

EXPAND void normalise_by(const Layer *layer, const float *restrict a, float *restrict b, int length,
                         int reach, float beta, int bf16) {
    for (int i = 0; i < length; i++) {
        float value = a[i] * negative_power(sum_squares(layer, a + i, reach), beta);
        b[i] = bf16 ? from_bf16(to_bf16(value)) : value;
    }
}

/* b = a t^-beta, rounded as the output is. The constants are the paper's. */
static void normalise(const Layer *layer, const float *a, float *b, int length) {
    const int papers = layer->reach == 2 && layer->beta == 0.75f;
    if (papers && layer->bf16) normalise_by(layer, a, b, length, 2, 0.75f, 1);
    else if (papers) normalise_by(layer, a, b, length, 2, 0.75f, 0);
    else normalise_by(layer, a, b, length, layer->reach, layer->beta, layer->bf16);
}

EXPAND void differentiate_by(const Layer *layer, const float *restrict a, float *restrict g,
                             float *restrict terms, int length, int reach, float beta) {
    const float factor = 2.0f * layer->alpha * beta;
    for (int i = 0; i < length; i++) {
        float t = sum_squares(layer, a + i, reach);
        g[i] *= negative_power(t, beta);
        terms[i] = g[i] * a[i] / t;
    }
    for (int i = 0; i < length; i++) {
        float sum = 0.0f;
        for (int j = -reach; j <= reach; j++) sum += terms[i + j];
        g[i] -= factor * a[i] * sum;
    }
}

/* The gradient of b becomes that of a: g t^-beta - 2 alpha beta a sum(g a t^(-beta - 1)). */
static void differentiate(const Layer *layer, const float *a, float *g, float *terms, int length) {
    if (layer->reach == 2 && layer->beta == 0.75f)
        differentiate_by(layer, a, g, terms, length, 2, 0.75f);
    else
        differentiate_by(layer, a, g, terms, length, layer->reach, layer->beta);
}

/* Let one pixel compete for the largest value of a window; the first of equals wins, and a NaN. */
static void compete(const float *restrict b, int32_t place, int length, float *restrict most,
                    int32_t *restrict places) {
    for (int i = 0; i < length; i++) {
        int wins = (b[i] > most[i]) | (b[i] != b[i]);
        most[i] = wins ? b[i] : most[i];
        places[i] = wins ? place : places[i];
    }
}

/* Add a window's gradient to one of its pixels, in the maps whose largest value is there. */
static void add_gradient(const float *restrict gradient, const int32_t *restrict places,
                         int32_t place, int length, float *restrict g) {
    for (int i = 0; i < length; i++) g[i] += places[i] == place ? gradient[i] : 0.0f;
}

/* `pooled` and `places` of the images from `begin` to `end`; places are row by row in a window.
 *
 * The rows of b stand in a ring until the last window that sees them. Returns 1 without memory.
 */
int forward(const Layer *layer, const void *z, void *pooled, uint8_t *places, int begin, int end) {
    const int pixel = count_unpacked(layer), size = layer->size, stride = layer->stride;
    const int length = layer->columns * pixel, width = layer->pooled_columns * pixel;
    const size_t maps = (size_t)layer->towers * layer->maps;
    const size_t row_in = layer->columns * maps, row_out = layer->pooled_columns * maps;
    float *row = calloc(length + 2 * layer->reach, sizeof(float));
    float *ring = calloc((size_t)size * length, sizeof(float));
    float *most = calloc(width, sizeof(float));
    int32_t *best = calloc(width, sizeof(int32_t));
    const int failed = !row || !ring || !most || !best;
    for (int image = begin; image < end && !failed; image++) {
        const size_t in = image * layer->rows * row_in;
        const size_t out = image * layer->pooled_rows * row_out;
        int done = 0;
        for (int y = 0; y < layer->pooled_rows; y++) {
            const int top = y * stride, bottom = least(top + size, layer->rows);
            for (done = done > top ? done : top; done < bottom; done++) {
                read_row(layer, z, in + done * row_in, row + layer->reach);
                normalise(layer, row + layer->reach, ring + (size_t)(done % size) * length, length);
            }
            for (int i = 0; i < width; i++) most[i] = -INFINITY, best[i] = 0;
            for (int x = 0; x < layer->pooled_columns; x++) {
                const int left = x * stride, right = least(left + size, layer->columns);
                for (int r = top; r < bottom; r++)
                    for (int c = left; c < right; c++)
                        compete(ring + (size_t)(r % size) * length + c * pixel,
                                (r - top) * size + c - left, pixel, most + x * pixel,
                                best + x * pixel);
            }
            pack(layer, most, pooled, out + y * row_out, layer->pooled_columns);
            pack_places(layer, best, layer->pooled_columns, places + out + y * row_out);
        }
    }
    free(row), free(ring), free(most), free(best);
    return failed;
}

/* `dz`, the gradient of z, from that of `pooled`, for the images from `begin` to `end`.
 *
 * Returns 1 without memory.
 */
int backward(const Layer *layer, const void *z, const void *gradient, const uint8_t *places,
             void *dz, int begin, int end) {
    const int pixel = count_unpacked(layer), size = layer->size, stride = layer->stride;
    const int length = layer->columns * pixel, width = layer->pooled_columns * pixel;
    const int windows = layer->pooled_rows * layer->pooled_columns;
    const size_t maps = (size_t)layer->towers * layer->maps, row_in = layer->columns * maps;
    float *row = calloc(length + 2 * layer->reach, sizeof(float));
    float *terms = calloc(length + 2 * layer->reach, sizeof(float));
    float *g = calloc(length, sizeof(float));
    float *given = calloc((size_t)layer->pooled_rows * width, sizeof(float));
    int32_t *best = calloc((size_t)layer->pooled_rows * width, sizeof(int32_t));
    const int failed = !row || !terms || !g || !given || !best;
    float *a = row + layer->reach;
    for (int image = begin; image < end && !failed; image++) {
        const size_t in = image * layer->rows * row_in, out = image * windows * maps;
        unpack(layer, gradient, out, windows, given);
        unpack_places(layer, places + out, windows, best);
        for (int r = 0; r < layer->rows; r++) {
            const int above = r - size + stride;
            memset(g, 0, length * sizeof(float));
            for (int y = above > 0 ? above / stride : 0;
                 y < layer->pooled_rows && y * stride <= r; y++)
                for (int x = 0; x < layer->pooled_columns; x++) {
                    const int left = x * stride, right = least(left + size, layer->columns);
                    const size_t window = (size_t)y * width + x * pixel;
                    for (int c = left; c < right; c++)
                        add_gradient(given + window, best + window,
                                     (r - y * stride) * size + c - left, pixel, g + c * pixel);
                }
            read_row(layer, z, in + r * row_in, a);
            differentiate(layer, a, g, terms + layer->reach, length);
            if (layer->relu)
                for (int i = 0; i < length; i++) g[i] = a[i] == 0.0f ? 0.0f : g[i];
            pack(layer, g, dz, in + r * row_in, layer->columns);
        }
    }
    free(row), free(terms), free(g), free(given), free(best);
    return failed;
}
