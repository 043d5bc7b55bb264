"""The processes that train one model together: who each is, how they agree, and what each computes."""
