"""Files of the published data sets that are known to be bad: facts, as data.

`KNOWN_FAULTS`, by track id, leaves; verify tells by it what is new from what everybody
has. A track id is that of gtzan.py and fma.py, or, in the merged data set, the same
after its source.

Source: what users of the two data sets report, of GTZAN's those of its copies in .wav.
"""

_NO_AUDIO = "holds no audio in fma_small as published"
_SHORT = "shorter than 30 s in fma_small as published"

KNOWN_FAULTS = {
    "jazz.00054": "the .wav of a much-copied version cannot be decoded",
    "098565": _SHORT,
    "098567": _SHORT,
    "098569": _SHORT,
    "099134": _NO_AUDIO,
    "108925": _NO_AUDIO,
    "133297": _NO_AUDIO,
}


def known_fault(track_id: str, source: str) -> str:
    """What is known to be wrong with a track, as one phrase; "" for nothing.

    That such a file is missing is no news either: many delete it from their copy.

    Args:
      track_id: as the loader gives it: "jazz.00054", "098565", "fma/098565".
      source: the data set that the track is from: "gtzan", "fma", ...
    """
    if source not in ("gtzan", "fma"):
        return ""
    return KNOWN_FAULTS.get(track_id.removeprefix(f"{source}/"), "")
