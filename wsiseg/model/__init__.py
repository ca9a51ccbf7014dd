"""The networks and what belongs to them: ConStruct, losses, encoders, checkpoints, dense CRF.

Nothing is imported here, so that the CRF does not load the encoders, nor the encoders the CRF.
"""
