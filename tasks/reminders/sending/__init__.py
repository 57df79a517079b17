"""From a planned mail to the server's answer: the gate, the letter, the sending, bounces, and what people decide."""
