"""An avatar from one photograph: fitted head, texture from the picture, the rest made up so that it moves."""
