"""What counts of the objects of a sweep: of a trial's FineTuneJob, and of its Evaluation. Pure."""
