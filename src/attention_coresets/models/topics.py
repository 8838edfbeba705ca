"""What planted facts are about (serving/needle.py): known without transformers, so that plans can be checked."""

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
