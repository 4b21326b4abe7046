"""Operations with more than one implementation; the plain maths of each is its specification."""
