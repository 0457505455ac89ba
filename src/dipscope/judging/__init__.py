"""Verdicts of other models: rubrics, who judges, what is kept of it, and how it joins the records."""
