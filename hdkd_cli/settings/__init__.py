"""What a run is: ``schema`` the settings (``data``: of the images, ``networks``: of the model),
``methods`` which of them a method stands for, ``layers`` which layer set what, ``presets`` complete
named runs.

``sources`` reads files, the environment and options; ``keys`` reads names and types off the schema;
``values`` turns text into values; ``explain`` words errors; ``toml`` writes settings down and reads
them back; ``transform`` tells how images are prepared. Nothing here imports torch.
"""
