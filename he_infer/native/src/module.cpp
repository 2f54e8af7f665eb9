// The Python module: checks every argument before any arithmetic, then releases the
// interpreter lock. Errors are ValueError here; the backend gives them their type.
#include "engine.hpp"

using namespace nb::literals;

namespace he {
namespace {

nb::object export_words(const Shared& c) {
    const std::size_t shape[3] = {static_cast<std::size_t>(c->size),
                                  static_cast<std::size_t>(c->level) + 1, c->n};
    return nb::cast(nb::ndarray<nb::numpy, const u64>(c->words.get(), 3, shape, nb::cast(c)));
}

using GroupSpec = std::pair<std::vector<std::tuple<int, std::uint32_t, Plain>>, std::uint32_t>;

std::shared_ptr<Transform> make_transform(int level,
                                          const std::vector<std::vector<GroupSpec>>& targets,
                                          const std::vector<std::uint32_t>& folds) {
    require(level >= 1, "a transform ends with a rescale: it needs level 1 or more");
    auto t = std::make_shared<Transform>();
    t->level = level;
    t->folds = folds;
    for (const auto& target : targets) {
        std::vector<Group> groups;
        for (const auto& [products, then] : target) {
            Group group;
            group.then = then;
            for (const auto& [source, element, plain] : products) {
                require(source >= 0, "a negative source");
                require(plain != nullptr && plain->level == level, "a plaintext at another level");
                group.products.push_back({source, element, plain});
            }
            groups.push_back(std::move(group));
        }
        require(!groups.empty() && !groups.front().products.empty(),
                "a target needs products in its first group");
        t->targets.push_back(std::move(groups));
    }
    require(!t->targets.empty(), "a transform needs a target");
    const bool hoists = t->hoists();
    for (const auto& target : t->targets) {
        for (const auto& group : target) {
            for (const auto& p : group.products) {
                require(!hoists || p.plain->extended, "rotated sources need extended plaintexts");
            }
        }
    }
    return t;
}

}  // namespace
}  // namespace he

NB_MODULE(_core, m) {
    using namespace he;
    using Unlocked = nb::call_guard<nb::gil_scoped_release>;
    m.doc() = "CKKS arithmetic on public data: ciphertexts, evaluation keys, encoded weights.";
    m.def("available_paths", &available_paths);
    nb::class_<Ciphertext>(m, "Ciphertext")
        .def_ro("size", &Ciphertext::size)
        .def_ro("level", &Ciphertext::level)
        .def_prop_ro("residues", &export_words);
    nb::class_<Plaintext>(m, "Plaintext")
        .def_ro("level", &Plaintext::level)
        .def_ro("run", &Plaintext::run)
        .def_prop_ro("nbytes", [](const Plaintext& p) {
            return p.bytes.size();
        });
    nb::class_<SwitchKey>(m, "SwitchKey")
        .def_ro("element", &SwitchKey::element)
        .def_ro("level", &SwitchKey::level);
    nb::class_<Transform>(m, "Transform")
        .def(nb::new_(&make_transform), "level"_a, "targets"_a, "folds"_a);
    nb::class_<Engine>(m, "Engine")
        .def(nb::init<std::size_t, std::vector<u64>, const std::string&>(), "n"_a, "moduli"_a,
             "path"_a = "best")
        .def_prop_ro("path", [](const Engine& e) { return e.ring().path(); })
        .def("ciphertext", &Engine::ciphertext, "residues"_a.noconvert())
        .def("seeded", &Engine::seeded, "c0"_a.noconvert(), "seed"_a)
        .def("expand", &Engine::expand, "seed"_a)
        .def("switch_key", &Engine::switch_key, "element"_a, "b"_a.noconvert(), "seeds"_a)
        .def("plaintext", &Engine::plaintext, "coefficients"_a.noconvert(), "level"_a,
             "extended"_a)
        .def("add", &Engine::add, Unlocked())
        .def("add_plain", &Engine::add_plain, Unlocked())
        .def("add_integers", &Engine::add_integers, "a"_a, "coefficients"_a.noconvert())
        .def("multiply_plain", &Engine::multiply_plain, Unlocked())
        .def("multiply", &Engine::multiply, Unlocked())
        .def("rescale", &Engine::rescale, "a"_a, "threads"_a = 1, Unlocked())
        .def("drop", &Engine::drop, Unlocked())
        .def("relinearize", &Engine::relinearize, "a"_a, "key"_a, "threads"_a = 1, Unlocked())
        .def("rotate", &Engine::rotate, "a"_a, "key"_a, "threads"_a = 1, Unlocked())
        .def("transform", &Engine::transform, "transform"_a, "sources"_a, "keys"_a,
             "threads"_a = 1)
        .def("combine", &Engine::combine, "starts"_a.noconvert(), "columns"_a.noconvert(),
             "values"_a.noconvert(), "sources"_a,
             "threads"_a = 1)
        .def("encrypt_zero", &Engine::encrypt_zero, "level"_a, "public_key"_a.noconvert(),
             "small"_a.noconvert())
        .def("transform_rows", &Engine::transform_rows, "rows"_a.noconvert(), "index"_a, "forward"_a);
}
