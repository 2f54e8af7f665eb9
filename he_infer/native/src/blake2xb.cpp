#include "blake2xb.hpp"

#include "blake2_tables.hpp"

#include <cstring>

namespace he {
namespace {

void compress(u64 h[8], const unsigned char block[128], u64 bytes, bool last) {
    u64 m[16], v[16];
    std::memcpy(m, block, sizeof m);
    for (int i = 0; i < 8; ++i) {
        v[i] = h[i];
        v[i + 8] = kBlake2Initial[i];
    }
    v[12] ^= bytes;
    if (last) v[14] = ~v[14];
    for (const auto& s : kBlake2Sigma) blake2_round(v, m, s);
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
            h[i] = kBlake2Initial[i] ^ word;
        }
    }
};

constexpr std::size_t kBuffer = 4096;  // what SEAL asks of one call

// SEAL's stream: call number c gives BLAKE2Xb of the word c, keyed by the seed.
class Stream {
   public:
    Stream(const unsigned char* seed, const Kernels& kernels) : seed_(seed), kernels_(kernels) {}

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
        u64 common[8];
        leaf.apply(common);
        for (std::size_t i = 0; i < kBuffer / 64; i += 8) {
            u64 words[64];
            kernels_.leaves(words, root, common, i);
            std::memcpy(buffer_ + 64 * i, words, sizeof words);
        }
        position_ = 0;
    }

    const unsigned char* seed_;
    const Kernels& kernels_;
    u64 counter_ = 0;
    std::size_t position_ = kBuffer;
    unsigned char buffer_[kBuffer];
};

}  // namespace

void expand_seed(const unsigned char* seed, const std::vector<u64>& moduli, std::size_t n,
                 u64* out, const Kernels& kernels) {
    Stream stream(seed, kernels);
    stream.read(reinterpret_cast<unsigned char*>(out), moduli.size() * n * sizeof(u64));
    for (const u64 q : moduli) {
        // Words from the last, incomplete multiple of q would favour small residues.
        const u64 bound = ~u64{0} - ~u64{0} % q - 1;
        const u64 reciprocal = ~u64{0} / q;
        for (std::size_t i = 0; i < n; ++i, ++out) {
            while (*out >= bound) stream.read(reinterpret_cast<unsigned char*>(out), sizeof(u64));
            u64 rest = *out - static_cast<u64>((static_cast<u128>(*out) * reciprocal) >> 64) * q;
            while (rest >= q) rest -= q;
            *out = rest;
        }
    }
}

}  // namespace he
