"""MIMIC-IV and MIMIC-IV-ECG: twelve-lead ECG and fifty blood labs, death within a year of admission."""

from mindgap.data.mimic.checks import parameters, tables
from mindgap.data.mimic.extract import prepare
from mindgap.data.mimic.settings import Settings

__all__ = ["Settings", "parameters", "prepare", "tables"]
