"""The networks themselves: plain torch modules, each with a config."""
