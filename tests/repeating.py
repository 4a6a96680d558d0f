"""Every model trained once in this process: python tests/repeating.py STORE; run twice by `test_numbers.py`."""

import sys

from test_training import settings

from vaelib.models import MODELS
from vaelib.store import open_store
from vaelib.training import train

if __name__ == "__main__":
    store = open_store(sys.argv[1])
    for model in MODELS:
        train(
            settings(store, model, epochs=2, pretrain_epochs=int(model == "vade"), precision="auto"), store, show=False
        )
