"""Whether a few letters mean a name: word by word, in any order, letters may be left out.

Textual's own search takes the words in their order only, so that "gate 3" does not find layer 3 ffn_gate, and reads
what it finds as markup.
"""

_WHOLE, _START, _INSIDE, _SCATTERED = 3.0, 2.0, 1.5, 1.0  # how well a word fits


def matched(query: str, name: str) -> tuple[float, list[int]] | None:
    """Return how well a query fits a name, in (0, 1] and better where less of the name is left, and where it stands.

    None if a word of it does not fit: its letters, in their order, must stand in the name.
    """
    words, lower = query.lower().split(), name.lower()
    if not words or len(lower) != len(name):  # a letter whose small form is longer: places would not be those of `name`
        return None
    total, marks = 0.0, set[int]()
    for word in words:
        found = _word(word, lower)
        if found is None:
            return None
        total += found[0] * len(word)
        marks.update(found[1])
    letters = sum(map(len, words))
    return (total / letters) / _WHOLE * (0.9 + 0.1 * min(letters / len(name), 1.0)), sorted(marks)


def _word(word: str, name: str) -> tuple[float, range | list[int]] | None:
    place = _best_place(word, name)
    if place is not None:
        end = place + len(word)
        starts, ends = not name[place - 1 : place].isalnum(), not name[end : end + 1].isalnum()
        return (_WHOLE if starts and ends else _START if starts else _INSIDE), range(place, end)
    places: list[int] = []
    for letter in word:
        found = name.find(letter, places[-1] + 1 if places else 0)
        if found < 0:
            return None
        places.append(found)
    return _SCATTERED * len(places) / (places[-1] - places[0] + 1), places


def _best_place(word: str, name: str) -> int | None:
    """Where a word stands in a name: as a word of it, else at the start of one, else anywhere; None if nowhere."""
    places, place = [], name.find(word)
    while place >= 0:
        places.append(place)
        place = name.find(word, place + 1)

    def quality(place: int) -> tuple[bool, bool]:
        end = place + len(word)
        starts = not name[place - 1 : place].isalnum()
        return starts and not name[end : end + 1].isalnum(), starts

    return max(places, key=quality, default=None)
