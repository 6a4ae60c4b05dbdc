"""What others found out about GTZAN's recordings by listening: facts, as text.

Track numbers stand as ranges, genre by genre. `SIDES` and `ARTISTS`, by track id, leave
for gtzan.py. The text holds the lists; `parse` reads it.

Sources:
  The fault-filtered split: C. Kereliuk, B. L. Sturm, J. Larsen, "Deep learning and
  music adversaries", IEEE Transactions on Multimedia 17 (2015). Recordings that are
  repeated, distorted or mislabelled were removed by hand, and no artist is on two
  sides: 443 train, 197 validate, 290 test.
  The artists: B. L. Sturm, "An analysis of the GTZAN music genre dataset", MIRUM
  (2012).
"""

import re

# Side to the tracks on it; the other 70 tracks are not used.
_FILTERED = {
    "train": """
    blues 29-49,73-97
    classical 30-33,43-48,50-67,80-99
    country 19-26,28-29,65-99
    disco 5,15-20,22-37,39-45,47,49,53-54,56-57,59,61,70,73-74,89
    hiphop 2-25,28-29,31-38,41-42,55-61,77-80
    jazz 0-1,11-24,41,47-72
    metal 2-3,5,21,24,35,46-57,59-66,69,71-72,79-80,84,86,89-99
    pop 2-9,11-12,16-20,23-29,31-36,38-42,44,46,49-50,80,97-99
    reggae 0-2,4,6,9,11-12,14-32,42-45,49-51,54-60,63,69
    rock 0-9,16-26,57-70,91-99
    """,
    "validation": """
    blues 0-11,50-60
    classical 0-10,68-76
    country 0-7,9-18,27,41-42,45,49
    disco 0,2-4,6-14,46,48,52,67-68,72,75,90,95
    hiphop 81-98
    jazz 2-10,25-32
    metal 0-1,6-11,16-20,36-37,68,76-77,81-82
    pop 10,53,55,58-62,81,83-86
    reggae 61-62,70,72,74,76-78,85,92-99
    rock 38,49-56,71-85
    """,
    "test": """
    blues 12-28,61-72,98-99
    classical 11-29,34-41,49,77-79
    country 30-40,43-44,46-48,50-51,53-64
    disco 1,21,58,62-66,69,76-88,91-94,96-97,99
    hiphop 0,26-27,30,40,43-45,51-54,62-75,99
    jazz 73-99
    metal 12-15,22-23,25-33,38-39,67,70,73-75,78,83,85,87-88
    pop 0-1,13-14,43,63-66,69-79,82,88-96
    reggae 34-40,46-48,52-53,64-68,71,79,82-84,87-90
    rock 10-15,27-37,39-48,86-90
    """,
}

# Tracks by one artist, the groups apart by ";"; a track in no group stands alone.
_ARTISTS = """
    blues 0-3,5-11; 12-28; 29-39; 40-49; 50-60; 61-72; 73-81; 85-97; 98-99
    classical 0-3; 11-29; 30-33; 34-37; 38-41; 42,53; 43,45; 44,48; 47,52,55,57;
        49,77-79; 51,80-81; 58,60; 63-67; 68-76; 82-88; 89-91,94-99
    country 5,45; 8,50-64; 12,27; 15,49; 16,41; 19,26,65-80; 81-93; 94-99
    disco 1,21,38,78; 4,48; 13,46,95; 15,41; 17,24,44-45; 22,28,30,35,37; 23,26;
        25,29,34; 49-51,70-71,73-74; 52,75,90; 55,60,89; 56,59; 62,79; 63,98-99;
        66,69; 67-68,72
    hiphop 1,7,41-42; 2,4,32; 3,5-6; 8-25,36; 39-40,45; 43-44; 46-51,62-75; 55-61;
        76,78; 79-80; 81-98
    jazz 0-1; 2-10; 11-24; 25-32; 33-46,51,53,55,57-58,60,62,65,67-72; 73-77; 83,86;
        87-92; 94-99
    metal 2,5,34,92-94; 4,12-15; 25,30; 28,31; 33,38-39,73,75,78,83,87; 40-45,61-66;
        46-57; 58-60; 67,70; 68,77; 69,84,90-91; 71,79-80; 81-82; 95-99
    pop 0,87-96; 2,97-99; 3-9; 11,39-40,42; 15-38; 44-51,80; 52-62; 67-73; 74-78,82;
        84-86
    reggae 0-27,54-60; 33,42,44,50,63; 41,49,69; 46-48,64,66-68,71; 61,73-74;
        70,76-78; 75,91-92; 80-82; 83-84; 85,94-99
    rock 0-9; 10-15; 16-26; 28-31,33,35,37; 32,39-48; 49-56; 57-63; 64-70; 71-78;
        79-85; 91-99
"""


def parse(text: str) -> dict[str, list[list[str]]]:
    """Reads "blues 0-2,7; 4 rock 5" to ids.

    Args:
      text: genres, each followed by its groups, apart by ";", of ranges, apart by ",".

    Returns:
      Genre to its groups of track ids, such as "blues.00007".
    """
    return {
        genre: [
            [f"{genre}.{number:05d}" for number in _numbers(group)]
            for group in groups.split(";")
        ]
        for genre, groups in re.findall("([a-z]+)([^a-z]+)", text)
    }


def _numbers(ranges: str) -> list[int]:
    """Reads "0-2,7" to [0, 1, 2, 7]."""
    numbers = []
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


# Track id to "train", "validation" or "test"; a track left out by hand is missing.
SIDES: dict[str, str] = {
    track_id: side
    for side, text in _FILTERED.items()
    for [track_ids] in parse(text).values()
    for track_id in track_ids
}

# Track id to its artist, who is named by the first track of the group; a track in no
# group is missing.
ARTISTS: dict[str, str] = {
    track_id: group[0]
    for groups in parse(_ARTISTS).values()
    for group in groups
    for track_id in group
}
