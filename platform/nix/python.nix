# Runs Python inside builds, and makes Python environments from locked wheels.
{ system, lib, locks, fixed, base }:
let
  libraries = "${base}/lib/x86_64-linux-gnu";

  # A build whose builder is `python3.11 ARGS…` of the base, started through the base's own loader,
  # because a build has no /lib64. What the script needs to know comes in environment variables.
  run = { name, args, ... }@given:
    derivation (removeAttrs given [ "args" ] // {
      inherit system;
      builder = "${libraries}/ld-linux-x86-64.so.2";
      args = [ "--library-path" "${libraries}:${base}/usr/lib/x86_64-linux-gnu" "${base}/usr/bin/python3.11" "-B" "-P" ]
        ++ args;
      PYTHONHOME = "${base}/usr";
      # Sets and dictionaries must not be ordered by chance, nor sums by the number of cores.
      PYTHONHASHSEED = "0";
      OMP_NUM_THREADS = "1";
      HOME = "/build";
      LC_ALL = "C.UTF-8";
    });
in
{
  inherit run;

  # `site-packages/` with the wheels, `wheels.json` with who brought which file, `bin/python`, and
  # `base`, the root filesystem that it runs on.
  environment = { name, wheels }:
    run {
      inherit name;
      args = [ ./python/install.py (placeholder "out") base ] ++ map fixed wheels;
    };
}
