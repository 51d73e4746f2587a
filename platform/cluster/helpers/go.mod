module helix.example/cluster/helpers

go 1.26.0
