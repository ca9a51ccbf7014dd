"""Everything that is a network: ConStruct, its losses, encoders, checkpoints and the dense CRF.

Nothing is imported here, so that the CRF does not load the encoders, nor they the CRF.
"""
