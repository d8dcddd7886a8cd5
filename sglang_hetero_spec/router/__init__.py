"""The online prompt classifier: fitted offline with scikit-learn, asked in the server with numpy alone."""
