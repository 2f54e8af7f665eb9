#include "blake2xb.hpp"

#include <cstring>

namespace he {
namespace {

constexpr u64 kInitial[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b,
                             0xa54ff53a5f1d36f1, 0x510e527fade682d1, 0x9b05688c2b3e6c1f,
                             0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
constexpr unsigned char kSigma[12][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3}};

inline u64 rotate(u64 x, int bits) { return (x >> bits) | (x << (64 - bits)); }

inline void mix(u64* v, int a, int b, int c, int d, u64 x, u64 y) {
    v[a] += v[b] + x;
    v[d] = rotate(v[d] ^ v[a], 32);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 24);
    v[a] += v[b] + y;
    v[d] = rotate(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotate(v[b] ^ v[c], 63);
}

void compress(u64 h[8], const unsigned char block[128], u64 bytes, bool last) {
    u64 m[16], v[16];
    std::memcpy(m, block, sizeof m);
    for (int i = 0; i < 8; ++i) {
        v[i] = h[i];
        v[i + 8] = kInitial[i];
    }
    v[12] ^= bytes;
    if (last) v[14] = ~v[14];
    for (const auto& s : kSigma) {
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; ++i) h[i] ^= v[i] ^ v[i + 8];
}

// The 64-byte parameter block of BLAKE2b, as eight words.
struct Parameters {
    unsigned char digest_bytes = 64, key_bytes = 0, fanout = 1, depth = 1;
    std::uint32_t leaf_bytes = 0, node = 0, output_bytes = 0;
    unsigned char node_depth = 0, inner_bytes = 0;
    void apply(u64 h[8]) const {
        unsigned char raw[64] = {digest_bytes, key_bytes, fanout, depth};
        std::memcpy(raw + 4, &leaf_bytes, 4);
        std::memcpy(raw + 8, &node, 4);
        std::memcpy(raw + 12, &output_bytes, 4);
        raw[16] = node_depth;
        raw[17] = inner_bytes;
        for (int i = 0; i < 8; ++i) {
            u64 word;
            std::memcpy(&word, raw + 8 * i, 8);
            h[i] = kInitial[i] ^ word;
        }
    }
};

constexpr std::size_t kBuffer = 4096;  // what SEAL asks of one call

// SEAL's stream: call number c gives BLAKE2Xb of the word c, keyed by the seed.
class Stream {
   public:
    explicit Stream(const unsigned char* seed) : seed_(seed) {}

    void read(unsigned char* out, std::size_t bytes) {
        while (bytes != 0) {
            if (position_ == kBuffer) refill();
            const std::size_t part = bytes < kBuffer - position_ ? bytes : kBuffer - position_;
            std::memcpy(out, buffer_ + position_, part);
            position_ += part;
            out += part;
            bytes -= part;
        }
    }

   private:
    void refill() {
        u64 root[8];
        Parameters first;
        first.key_bytes = kSeedBytes;
        first.output_bytes = kBuffer;
        first.apply(root);
        unsigned char block[128] = {};
        std::memcpy(block, seed_, kSeedBytes);
        compress(root, block, 128, false);
        std::memset(block, 0, sizeof block);
        std::memcpy(block, &counter_, 8);
        compress(root, block, 136, true);
        ++counter_;
        Parameters leaf;
        leaf.fanout = 0;
        leaf.depth = 0;
        leaf.leaf_bytes = 64;
        leaf.output_bytes = kBuffer;
        leaf.inner_bytes = 64;
        std::memset(block, 0, sizeof block);
        std::memcpy(block, root, 64);
        for (std::size_t i = 0; i < kBuffer / 64; ++i) {
            u64 h[8];
            leaf.node = static_cast<std::uint32_t>(i);
            leaf.apply(h);
            compress(h, block, 64, true);
            std::memcpy(buffer_ + 64 * i, h, 64);
        }
        position_ = 0;
    }

    const unsigned char* seed_;
    u64 counter_ = 0;
    std::size_t position_ = kBuffer;
    unsigned char buffer_[kBuffer];
};

}  // namespace

void expand_seed(const unsigned char* seed, const std::vector<u64>& moduli, std::size_t n,
                 u64* out) {
    Stream stream(seed);
    stream.read(reinterpret_cast<unsigned char*>(out), moduli.size() * n * sizeof(u64));
    for (const u64 q : moduli) {
        // Words from the last, incomplete multiple of q would favour small residues.
        const u64 bound = ~u64{0} - ~u64{0} % q - 1;
        for (std::size_t i = 0; i < n; ++i, ++out) {
            while (*out >= bound) stream.read(reinterpret_cast<unsigned char*>(out), sizeof(u64));
            *out %= q;
        }
    }
}

}  // namespace he
