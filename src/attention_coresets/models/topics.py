"""What a language model is asked about a compressed text (serving/needle.py): known without transformers, for plans."""

TOPICS = (
    "secret number of Lisbon",
    "pass code of the blue door",
    "telephone number of Doctor Mason",
    "price of the old violin",
    "weight of the bronze statue",
    "license plate of the green van",
    "combination of the iron safe",
    "account balance of Mrs Porter",
)
FEW = 4  # how many of them are planted where no number is given
CITIES = ("Lisbon", "Vienna", "Oslo", "Madrid", "Athens", "Dublin", "Prague", "Warsaw")
WORDS = (
    *("apple", "river", "stone", "cloud", "garden", "window", "silver", "market", "forest", "bridge"),
    *("candle", "mirror", "planet", "rocket", "island", "button", "hammer", "ladder", "pencil", "saddle"),
)
# facts of different kinds; numbers of different cities, which differ in one word; keys with a value each, in one list;
# places of the text itself, to be quoted on; the text with facts of different kinds, to be said again
PROBES = ("facts", "one_kind", "pairs", "quotes", "repetition")
