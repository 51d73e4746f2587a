"""The commands of `helix`, one file each: parse, call one function, print."""
