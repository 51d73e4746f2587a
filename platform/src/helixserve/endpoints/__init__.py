"""How clients reach a server: HTTP, gRPC, and what both of them share. An endpoint translates; it decides nothing."""
