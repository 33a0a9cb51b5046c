"""An lm-eval backend that runs every distinct prefix of the requests once: `shared-prefix`.

Multiple choice by log-likelihood asks a model for many sequences that begin alike: few-shot
examples, fixed instructions, a question before each of its choices. All requests of a call are
laid out as one tree of tokens (`tree`), and the model runs its nodes in depth-first order, packed
without padding: a token's position is its depth, and it attends to its ancestors (`attention`).
The vocabulary is computed only where an answer is scored (`backend`). It gives what lm-eval's `hf`
backend gives, up to floating-point noise, and is used like it:

    wildmerge lm-eval run --model shared-prefix --model_args pretrained=... ...

is lm-eval's own command line with this backend registered. It takes all that `hf` takes;
`batch_tokens` bounds the tokens of one forward pass (`auto` where it is not given). Models that
can't be run this way run as `hf` would.
"""
