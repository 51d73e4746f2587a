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

  install = name: args: run { inherit name; args = [ ./python/install.py (placeholder "out") base ] ++ args; };

  # What brings gigabytes, and what many models have in common: each family is one path in the store,
  # named by its wheels alone, and an environment links to it. A family is whole, because its
  # libraries find one another by paths relative to their own.
  families = {
    torch = "(torch|triton|nvidia_.*|cuda_.*)-.*";
    zig = "ziglang-.*";
  };
  isOf = family: pin: builtins.match families.${family} pin.name != null;
  ofFamily = wheels: family: builtins.filter (isOf family) wheels;
  present = wheels: builtins.filter (family: ofFamily wheels family != [ ]) (builtins.attrNames families);
  path = wheels: family: install "${family}-wheels" (map fixed (ofFamily wheels family));
in
{
  inherit run;

  # `site-packages/` with the wheels, `wheels.json` with who brought which file, `bin/python`, and
  # `base`, the root filesystem that it runs on.
  environment = { name, wheels }: install name (map fixed wheels);

  # The same, with links to the families: for building, where no image is made of it.
  linkedEnvironment = { name, wheels }:
    let
      families = present wheels;
      own = builtins.filter (pin: !(builtins.any (family: isOf family pin) families)) wheels;
    in
    install name (map fixed own ++ builtins.concatMap (family: [ "--link" (path wheels family) ]) families);
}
