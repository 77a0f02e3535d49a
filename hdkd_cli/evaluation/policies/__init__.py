"""How thresholds are found; ``calibration.POLICIES`` names the searches.

geometric   the published family (Huang et al., ICLR 2018)
optimal     the best accuracy at a cost
risk        a guarantee about the risk of leaving early
"""
