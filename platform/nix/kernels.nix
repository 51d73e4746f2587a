# The native kernels (platform/kernels), compiled by the `zig cc` of a locked wheel. The compiler is
# the one of the model's build environment, alone: the kernels don't change when torch does.
{ root, lib, locks, python }:
{ name, lock }:
let
  isCompiler = pin: builtins.match "ziglang-.*" pin.name != null;
  compiler = python.environment {
    name = "zig";
    wheels = builtins.filter isCompiler (locks.wheels lock);
  };
  code = builtins.path {
    name = "kernels";
    path = root + "/platform/kernels";
    filter = path: type: type == "regular" && builtins.match ".*[.](c|h)|.*/build[.]py" path != null;
  };
in
python.run {
  inherit name;
  PYTHONPATH = "${compiler}/site-packages";
  args = [ "${code}/build.py" (placeholder "out") "--variant" "x86-64-v3" "--variant" "x86-64-v4" ];
}
