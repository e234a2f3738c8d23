"""LAWS, the table of scaling laws. To add a law, write a file in this folder and list it here."""

from scaling.laws import (
    additive,
    data_constrained,
    kaplan_joint,
    over_optimisation,
    over_training,
    pass_at_k,
    power,
    precision,
)
from scaling.laws.law import Law

FILES = (
    *(additive, power, kaplan_joint, over_training, data_constrained),
    *(pass_at_k, over_optimisation, precision),
)
LAWS: dict[str, Law] = {law.name: law for file in FILES for law in file.LAWS}
