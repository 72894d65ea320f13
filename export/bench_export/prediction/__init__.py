"""What `bench predict` and `bench inspect` do: inputs, answers and their formats, files of others, cards in words."""
