"""ProteinMPNN as a Helix model: a protein backbone in, designed or scored sequences out.

    structure   a PDB or mmCIF file as residues and backbone atoms (gemmi)
    featurize   residues as the arrays that the network takes
    network     the network, for reading (torch)
    weights     the published checkpoint, once, as safetensors
    export      the weights as ONNX graphs; `onnx_graph` writes them
    decode      runs the graphs: encode a backbone once, then choose residue after residue
    portable    exp with the same bits on every machine
    model       the tasks `design` and `score` behind `helixserve.model.contract.Model`
    service     the BentoML service
    reference   the network where the server has its graphs
    golden      writes the golden cases
    evaluate    what the regression gate measures
    data        takes the data files out of locked archives (standard library only)

The server imports `model` and `service`, and through them neither torch nor onnx.
"""
