# A model's native kernels: the general ones (platform/kernels) and its own (its folder kernels/),
# compiled by the `zig cc` of a locked wheel. The compiler is the one of the model's build
# environment, alone: the kernels don't change when torch does.
{ root, lib, locks, python }:
{ name, lock, folder }:
let
  isCompiler = pin: builtins.match "ziglang-.*" pin.name != null;
  compiler = python.linkedEnvironment {
    name = "zig";
    wheels = builtins.filter isCompiler (locks.wheels lock);
  };
  code = name: path: builtins.path {
    inherit name path;
    filter = path: type: type == "regular" && builtins.match ".*[.](c|h)|.*/build[.]py" path != null;
  };
  own = folder + "/kernels";
  general = code "kernels" (root + "/platform/kernels");
in
python.run {
  inherit name;
  PYTHONPATH = "${compiler}/site-packages";
  args = [ "${general}/build.py" (placeholder "out") "--variant" "x86-64-v3" "--variant" "x86-64-v4" ]
    ++ (if builtins.pathExists own then [ "--with" (code "own-kernels" own) ] else [ ]);
}
