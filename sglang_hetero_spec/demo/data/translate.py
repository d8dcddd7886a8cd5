"""Simple English sentences and their German: a small grammar with cases, adjective endings and word order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from sglang_hetero_spec.demo.data.base import Example, Sources, example


@dataclass(frozen=True)
class Verb:
    base: str
    third: str
    past: str
    de_third: str
    de_infinitive: str
    de_participle: str


def _nouns(text: str) -> list[tuple[str, str, str]]:
    return [tuple(item.split("/")) for item in text.split()]  # type: ignore[misc]


PEOPLE = _nouns(
    "teacher/Lehrer/m woman/Frau/f man/Mann/m child/Kind/n girl/Mädchen/n boy/Junge/m doctor/Arzt/m "
    "mother/Mutter/f father/Vater/m friend/Freund/m sister/Schwester/f brother/Bruder/m neighbour/Nachbarin/f "
    "grandmother/Großmutter/f cook/Koch/m baker/Bäcker/m painter/Maler/m singer/Sängerin/f farmer/Landwirt/m "
    "nurse/Krankenschwester/f policewoman/Polizistin/f guest/Gast/m uncle/Onkel/m aunt/Tante/f"
)
THINGS = _nouns(
    "apple/Apfel/m book/Buch/n letter/Brief/m car/Auto/n house/Haus/n table/Tisch/m lamp/Lampe/f cup/Tasse/f "
    "bicycle/Fahrrad/n coat/Mantel/m shirt/Hemd/n flower/Blume/f picture/Bild/n key/Schlüssel/m cake/Kuchen/m "
    "bottle/Flasche/f newspaper/Zeitung/f chair/Stuhl/m dress/Kleid/n ball/Ball/m hat/Hut/m clock/Uhr/f "
    "boat/Boot/n dog/Hund/m cat/Katze/f horse/Pferd/n bird/Vogel/m soup/Suppe/f bread/Brot/n map/Landkarte/f"
)
OF_PEOPLE = [
    item.split("/")
    for item in [
        "old/alt",
        "small/klein",
        "tall/groß",
        "good/gut",
        "young/jung",
        "friendly/freundlich",
        "quiet/ruhig",
        "strong/stark",
        "rich/reich",
        "poor/arm",
        "tired/müde",
        "happy/glücklich",
        "famous/berühmt",
        "clever/klug",
    ]
]
OF_THINGS = [
    item.split("/")
    for item in [
        "old/alt",
        "new/neu",
        "small/klein",
        "big/groß",
        "red/rot",
        "green/grün",
        "blue/blau",
        "white/weiß",
        "black/schwarz",
        "brown/braun",
        "beautiful/schön",
        "good/gut",
        "heavy/schwer",
        "cheap/billig",
        "strange/seltsam",
        "grey/grau",
    ]
]
VERBS = [
    Verb(*item.split("/"))
    for item in (
        "see/sees/saw/sieht/sehen/gesehen buy/buys/bought/kauft/kaufen/gekauft find/finds/found/findet/finden/gefunden "
        "sell/sells/sold/verkauft/verkaufen/verkauft look for/looks for/looked for/sucht/suchen/gesucht "
        "paint/paints/painted/malt/malen/gemalt take/takes/took/nimmt/nehmen/genommen "
        "bring/brings/brought/bringt/bringen/gebracht show/shows/showed/zeigt/zeigen/gezeigt "
        "love/loves/loved/liebt/lieben/geliebt need/needs/needed/braucht/brauchen/gebraucht "
        "clean/cleans/cleaned/putzt/putzen/geputzt forget/forgets/forgot/vergisst/vergessen/vergessen "
        "lose/loses/lost/verliert/verlieren/verloren describe/describes/described/beschreibt/beschreiben/beschrieben"
    )
    .replace("look for", "look_for")
    .replace("looks for", "looks_for")
    .replace("looked for", "looked_for")
    .split()
]
TIMES = [("today", "heute"), ("every day", "jeden Tag"), ("this morning", "heute Morgen"), ("on Monday", "am Montag"),
         ("on Sunday", "am Sonntag"), ("in the evening", "am Abend"), ("often", "oft"), ("again", "wieder"),
         ("in summer", "im Sommer"), ("in winter", "im Winter")]  # fmt: skip
PAST_TIMES = [("yesterday", "gestern"), ("last week", "letzte Woche"), ("on Monday", "am Montag"),
              ("last night", "gestern Abend"), ("last year", "letztes Jahr"), ("on Friday", "am Freitag")]  # fmt: skip
PLACES = [("in the garden", "im Garten"), ("at school", "in der Schule"), ("in the city", "in der Stadt"),
          ("at the market", "auf dem Markt"), ("in the kitchen", "in der Küche"), ("at the station", "am Bahnhof"),
          ("in the park", "im Park"), ("at the lake", "am See"), ("in the village", "im Dorf"),
          ("in the library", "in der Bibliothek")]  # fmt: skip
REASONS = [("because the weather is good", "weil das Wetter gut ist"),
           ("because it is cold", "weil es kalt ist"),
           ("because the shop is closed", "weil der Laden geschlossen ist"),
           ("because there is no time", "weil es keine Zeit gibt"),
           ("but nobody knows why", "aber niemand weiß, warum"),
           ("although it is very late", "obwohl es sehr spät ist")]  # fmt: skip
MODALS = [("wants to", "will"), ("can", "kann"), ("must", "muss"), ("should", "soll")]
_ARTICLE = {
    ("the", "m", "nom"): "der", ("the", "f", "nom"): "die", ("the", "n", "nom"): "das",
    ("the", "m", "acc"): "den", ("the", "f", "acc"): "die", ("the", "n", "acc"): "das",
    ("a", "m", "nom"): "ein", ("a", "f", "nom"): "eine", ("a", "n", "nom"): "ein",
    ("a", "m", "acc"): "einen", ("a", "f", "acc"): "eine", ("a", "n", "acc"): "ein",
}  # fmt: skip
_ENDING = {
    ("the", "m", "acc"): "en", ("a", "m", "nom"): "er", ("a", "n", "nom"): "es",
    ("a", "m", "acc"): "en", ("a", "n", "acc"): "es",
}  # fmt: skip
# Weak masculine noun: it takes an ending in the accusative.
_WEAK = {"Junge": "Jungen"}


def _phrase(rng: random.Random, case: str) -> tuple[str, str]:
    nouns, adjectives = (PEOPLE, OF_PEOPLE) if case == "nom" else (THINGS, OF_THINGS)
    en, de, gender = rng.choice(nouns)
    article = rng.choice(("the", "the", "a"))
    words_en, words_de = [article], [_ARTICLE[article, gender, case]]
    if rng.random() < 0.55:
        adjective_en, adjective_de = rng.choice(adjectives)
        words_en.append(adjective_en)
        words_de.append(adjective_de + _ENDING.get((article, gender, case), "e"))
    if words_en[0] == "a" and (words_en[1] if len(words_en) > 1 else en)[0] in "aeiou":
        words_en[0] = "an"
    words_de.append(_WEAK.get(de, de) if case == "acc" else de)
    return " ".join([*words_en, en]), " ".join(words_de)


def _sentence(rng: random.Random) -> tuple[str, str]:
    subject, subjekt = _phrase(rng, "nom")
    thing, objekt = _phrase(rng, "acc")
    verb = rng.choice(VERBS)
    place = rng.choice(PLACES) if rng.random() < 0.5 else ("", "")
    form = rng.choice(("present", "past", "modal", "front", "negative"))
    time = rng.choice(PAST_TIMES if form == "past" else TIMES)
    if form == "past":
        en = [subject, verb.past, thing, place[0], time[0]]
        de = [subjekt, "hat", time[1], objekt, place[1], verb.de_participle]
    elif form == "modal":
        modal = rng.choice(MODALS)
        en = [subject, modal[0], verb.base, thing, place[0], time[0]]
        de = [subjekt, modal[1], time[1], objekt, place[1], verb.de_infinitive]
    elif form == "front":
        en = [place[0] or time[0], subject, verb.third, thing]
        de = [place[1] or time[1], verb.de_third, subjekt, objekt]
    elif form == "negative":
        en = [subject, "does not", verb.base, thing, place[0]]
        de = [subjekt, verb.de_third, objekt, place[1], "nicht"] if not place[0] else \
             [subjekt, verb.de_third, objekt, "nicht", place[1]]  # fmt: skip
    else:
        en = [subject, verb.third, thing, place[0], time[0]]
        de = [subjekt, verb.de_third, time[1], objekt, place[1]]
    english = " ".join(word for word in en if word).replace("_", " ")
    german = " ".join(word for word in de if word)
    if rng.random() < 0.3:
        reason = rng.choice(REASONS)
        english, german = f"{english}, {reason[0]}", f"{german}, {reason[1]}"
    return _capital(english) + ".", _capital(german) + "."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


_WORDING = (
    "Translate into German:", "Translate the following text from English to German.", "English to German, please:",
    "How do you say this in German?", "Please translate these sentences to German.", "Give me the German version of:",
    "Put this into German:", "I need the following in German.", "What is the German translation of this text?",
)  # fmt: skip


def generate(rng: random.Random, sources: Sources) -> Iterator[Example]:
    """Two to four sentences at a time; the answer is their German, one line."""
    del sources
    while True:
        pairs = [_sentence(rng) for _ in range(rng.choice((2, 3, 3, 4)))]
        english, german = (" ".join(side) for side in zip(*pairs, strict=True))
        yield example("translate", rng.choice(_WORDING), english, german, english)
