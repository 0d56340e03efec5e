"""The network of a node: who is where, and the mesh of links between validators."""
