"""Evaluation: one pass over a split gives `Scores`; everything else is a pure function of them.

It knows numpy alone: nothing here, and nothing that only reads scores, imports torch.

scores          the exchange file
measures        what an exit says, in numbers: combined logits, and how sure it is
combination     how the logits of the exits so far are averaged; fitted: by likelihood
temperature     by what they are divided
confidence      which measures of that there are, those from outside among them
table           scores as policies read them
reliability     confidence against accuracy
anytime         each exit alone, each class by itself
policies        how thresholds are found: geometric, optimal, risk
calibration     scores → policy; the table of policies, and those from outside
policy          its one reader and writer; names: what it may name
operating_point one point out of a family, or where nobody leaves early
simulate        policy × scores → record
watch           whether a policy's promise holds on the images that come; audit: what is asked of it
betting         the bounds it rests on, right at all times at once
compare         runs side by side; bootstrap over images, paired over seeds
compatibility   what belongs together
budget          reading "0.4" and "30M"
times           reading "3ms"; what exits cost in seconds, by a profile
"""
